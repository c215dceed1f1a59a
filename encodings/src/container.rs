//! The container `.dnnc`: a network whose large constants are encoded.
//!
//! ```text
//! "DNNC", version        5 bytes
//! skeleton               its length, then the network without these constants
//! number of constants    each: place in the network less that of the one before, its length, what `encode` writes
//! CRC-32 of all before   4 bytes
//! ```
//!
//! Lengths and counts are of seven bits a byte. Every read is checked, so that a damaged file is an error.

use crate::bits::{put_number, take_bytes, take_number};

const MAGIC: &[u8; 4] = b"DNNC";
const VERSION: u8 = 1;

/// A container that was read.
pub struct Container<'a> {
    /// The network without its encoded constants.
    pub skeleton: &'a [u8],
    /// Places of constants in the network, ascending, and their encoded bytes.
    pub tensors: Vec<(usize, &'a [u8])>,
}

/// Whether bytes begin as a container does.
pub fn is_container(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The bytes of a container; places ascend.
pub fn write(skeleton: &[u8], tensors: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    put_number(&mut out, skeleton.len() as u64);
    out.extend_from_slice(skeleton);
    put_number(&mut out, tensors.len() as u64);
    let mut before = 0;
    for (place, bytes) in tensors {
        put_number(&mut out, (place - before) as u64);
        put_number(&mut out, bytes.len() as u64);
        out.extend_from_slice(bytes);
        before = *place;
    }
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// Reads a container. An error is a sentence.
pub fn read(bytes: &[u8]) -> Result<Container<'_>, String> {
    let Some(version) = bytes.strip_prefix(MAGIC).and_then(|rest| rest.first()) else { return Err("not a dnnc container".into()) };
    if *version != VERSION {
        return Err(format!("a dnnc container of version {version}; this version reads {VERSION}"));
    }
    let damaged = || "a damaged dnnc container: ".to_string();
    let Some((body, sum)) = bytes.split_last_chunk::<4>().filter(|(body, _)| body.len() > 5) else {
        return Err(damaged() + "it is cut short");
    };
    if crc32fast::hash(body).to_le_bytes() != *sum {
        return Err(damaged() + "its check sum is wrong");
    }
    parts(&body[5..]).ok_or_else(|| damaged() + "its parts do not fit")
}

fn parts(mut bytes: &[u8]) -> Option<Container<'_>> {
    let length = take_number(&mut bytes)?;
    let skeleton = take_bytes(&mut bytes, length)?;
    let (mut tensors, mut place) = (vec![], 0usize);
    for i in 0..take_number(&mut bytes)? {
        let step = usize::try_from(take_number(&mut bytes)?).ok()?;
        if i > 0 && step == 0 {
            return None;
        }
        place = place.checked_add(step)?;
        let length = take_number(&mut bytes)?;
        tensors.push((place, take_bytes(&mut bytes, length)?));
    }
    bytes.is_empty().then_some(Container { skeleton, tensors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_comes_back_and_damage_is_found() {
        let tensors = vec![(0, vec![1, 2, 3]), (7, vec![]), (300, vec![9; 200])];
        let bytes = write(b"network", &tensors);
        let read_back = read(&bytes).expect("whole");
        assert_eq!(read_back.skeleton, b"network");
        assert_eq!(read_back.tensors, tensors.iter().map(|(i, b)| (*i, &b[..])).collect::<Vec<_>>());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(read(&damaged).is_err(), "byte {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
