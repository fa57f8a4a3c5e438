"""One guarded call, from who pays to what is booked."""
