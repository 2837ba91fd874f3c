"""What the tests share: loop flavours, leak checks, the watchdog, protocols, sockets, programs."""
