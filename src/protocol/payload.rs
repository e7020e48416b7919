//! What a payload may not be, although JSON allows it, because some reader of it would choke.

/// Deepest nesting that every common JSON reader takes.
const DEEPEST: usize = 64;

/// Why a payload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPayload {
    #[error("payload is nested deeper than {DEEPEST} levels")]
    TooDeep,
    #[error("payload has a lone surrogate (\\ud800 to \\udfff without its other half), which is no text")]
    LoneSurrogate,
}

/// Scans JSON that serde has already found well formed.
pub(super) fn check(json: &str) -> Result<(), InvalidPayload> {
    let mut bytes = json.as_bytes();
    let mut depth = 0_usize;
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(InvalidPayload::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => bytes = string(rest)?,
            _ => {}
        }
    }
    Ok(())
}

/// Scans to the end of a string and returns what follows it.
fn string(mut bytes: &[u8]) -> Result<&[u8], InvalidPayload> {
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', b'u', rest @ ..] => match unit(rest) {
                0xd800..=0xdbff => match rest.get(4..) {
                    Some([b'\\', b'u', low @ ..]) if (0xdc00..=0xdfff).contains(&unit(low)) => &low[4..],
                    _ => return Err(InvalidPayload::LoneSurrogate),
                },
                0xdc00..=0xdfff => return Err(InvalidPayload::LoneSurrogate),
                _ => rest,
            },
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return Ok(bytes),
        };
    }
}

/// The code unit of four hexadecimal digits; 0 where they are not.
fn unit(digits: &[u8]) -> u32 {
    let digits = digits.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(64)), Ok(()));
        assert_eq!(check(&nested(65)), Err(InvalidPayload::TooDeep));
        assert_eq!(check(&format!("{:?}", "[".repeat(1000))), Ok(()));
        assert_eq!(check(&"[],".repeat(1000)), Ok(()));
        assert_eq!(check(r#"["\"[[","\\",{"a":"{"}]"#), Ok(()));
    }

    #[test]
    fn surrogates_come_in_pairs() {
        assert_eq!(check(r#""\ud83d\ude00 \u00e9 \\ud800""#), Ok(()));
        for bad in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\ud83d""#, r#""\ud83dx""#, r#"{"\udfff":1}"#] {
            assert_eq!(check(bad), Err(InvalidPayload::LoneSurrogate), "{bad}");
        }
    }
}
