"""`rq`, with what jobs need imported before it forks for each of them."""

from rq.cli import main

from tests.beside.queues import jobs

assert jobs
main()
