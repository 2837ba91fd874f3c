//! The poll loop under tokioloop.
