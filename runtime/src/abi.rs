//! The C ABI of compiled networks: the statuses that an inference can end with.

/// Alignment in bytes of constants, of the arena and of every buffer in it: a cache line.
pub const ALIGN: usize = 64;

/// All is well.
pub const OK: i32 = 0;
/// An index in the data is outside the tensor it points into.
pub const INDEX: i32 = 1;
/// A size is outside what the network was compiled for.
pub const SIZE: i32 = 2;
/// An integer was divided by zero.
pub const DIVISION: i32 = 3;
/// A loop did not end.
pub const ENDLESS: i32 = 4;
/// The caller gave sizes for which the object holds no code. Only networks of several sizes end with it, and before anything is read or written.
pub const DIMS: i32 = 5;

/// Every status but [`OK`]: number, name of its macro after the network's prefix, and a sentence.
pub const STATUSES: &[(i32, &str, &str)] = &[
    (INDEX, "BAD_INDEX", "an index in the data is outside the tensor it points into"),
    (SIZE, "BAD_SIZE", "a size is outside what the network was compiled for"),
    (DIVISION, "DIVISION_BY_ZERO", "an integer was divided by zero"),
    (ENDLESS, "ENDLESS_LOOP", "a loop did not end within as many iterations as it may have"),
    (DIMS, "BAD_DIMS", "the sizes given are none of those the network was compiled for"),
];

/// A sentence for a status.
pub fn describe(status: i32) -> &'static str {
    STATUSES.iter().find(|s| s.0 == status).map_or("an unknown status", |s| s.2)
}
