//! Facts of machines
