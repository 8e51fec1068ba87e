//! How many workers a service needs, and which go: a pure function of a snapshot.
