"""`mcp`: a server that tells an agent what it may still spend."""

from __future__ import annotations

from typing import Annotated

from budgetguard.cli import options
from budgetguard.cli.session import session
from budgetguard.errors import ConfigurationError


def mcp(
    user: Annotated[
        str | None, options.option("USER", "Whose budget; else BUDGETGUARD_USER, else the project's.")
    ] = None,
    store: options.Store = None,
    project: options.Project = None,
) -> None:
    """Answer an agent's questions about its budget, over MCP.

    The agent can ask what it has left and when that resets, what a call would cost, and what was spent. It
    can change nothing, and ask for nobody else. Give this command to the agent's program as an MCP server.

    \b
    Example:
      budgetguard mcp --user alice --project my-app
    """
    try:
        from budgetguard.integrations.mcp import mcp_server
    except ImportError as error:  # missing, or too old
        raise ConfigurationError(str(error)) from error
    with session(store, project) as here:
        mcp_server(here.guard, user).run("stdio")
