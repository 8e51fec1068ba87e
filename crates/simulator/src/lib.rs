//! The shipped scaling rules over a day of generated or recorded load.
