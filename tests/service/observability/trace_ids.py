"""Ids of a caller's trace and span, as `traceparent` has them."""

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
