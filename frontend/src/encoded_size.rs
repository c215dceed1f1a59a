//! The size of an ONNX file in memory, estimated before it is decoded: two bytes of a file may become hundreds when they are a message.

/// Messages and strings that a file may hold. A node has about ten, so this is far beyond any network, and still fits in memory.
const MOST: usize = 3_000_000;

/// The messages whose parts are counted.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Info,
    Type,
    TensorType,
    Shape,
    Function,
    /// A field with few parts: a string, bytes, numbers, a small message.
    Leaf,
}

impl Message {
    fn part(self, field: u64) -> Message {
        use Message::*;
        match (self, field) {
            (Model, 7) | (Attribute, 6) => Graph,
            (Model, 25) => Function,
            (Graph, 1) | (Function, 7) => Node,
            (Graph, 5) | (Attribute, 5) | (Sparse, 1 | 2) => Tensor,
            (Graph, 11..=13) => Info,
            (Graph, 15) | (Attribute, 22) => Sparse,
            (Node, 5) | (Function, 11) => Attribute,
            (Info, 2) => Type,
            (Type, 1) => TensorType,
            (TensorType, 2) => Shape,
            _ => Leaf,
        }
    }
}

/// Refuses a file that would take far more memory than it has bytes. What is malformed is left to the decoder to say.
pub(crate) fn check_parts(bytes: &[u8]) -> Result<(), String> {
    let mut left = MOST;
    let mut stack = vec![(bytes, Message::Model)];
    while let Some((mut rest, message)) = stack.pop() {
        while let Some(key) = varint(&mut rest) {
            let skip = match key & 7 {
                0 => varint(&mut rest).map(|_| 0),
                1 => Some(8),
                2 => varint(&mut rest),
                5 => Some(4),
                // Groups, which ONNX does not have, could hide anything.
                3 => return Err("a group, which no ONNX file has".into()),
                _ => None,
            };
            let Some((part, after)) = skip.and_then(|n| rest.split_at_checked(usize::try_from(n).ok()?)) else { break };
            rest = after;
            if key & 7 == 2 {
                left = left.checked_sub(1).ok_or_else(|| format!("too large: more than {MOST} parts"))?;
                match message.part(key >> 3) {
                    Message::Leaf => {}
                    inner => stack.push((part, inner)),
                }
            }
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << (7 * i);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_empty_messages_are_refused() {
        let graph = |nodes: usize| {
            let mut inner: Vec<u8> = [10, 0].repeat(nodes);
            let mut file = vec![(7 << 3) | 2];
            let mut len = inner.len();
            while len >= 128 {
                file.push((len & 127) as u8 | 128);
                len >>= 7;
            }
            file.push(len as u8);
            file.append(&mut inner);
            file
        };
        assert_eq!(check_parts(&graph(1000)), Ok(()));
        assert!(check_parts(&graph(MOST)).unwrap_err().contains("too large"));
        assert_eq!(check_parts(&graph(1000)[..500]), Ok(()), "the decoder says that it is cut short");
    }
}
