"""The `sock_*` methods: what they do, and what stays in the poll between two calls."""
