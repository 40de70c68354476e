//! What does a UUID look like? (RFC 9562)

/// The text of version 4, made of a random number.
pub(crate) fn version_4(random: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (place, byte) in text.iter_mut().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            continue;
        }
        shift -= 4;
        *byte = HEX.get((bits >> shift) as usize & 0xf).copied().unwrap_or(b'0');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_are_set() {
        let text = |random| String::from_utf8(version_4(random).to_vec()).unwrap();
        assert_eq!(text(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(text(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
