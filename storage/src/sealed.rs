//! JSON with a seal: `{"content": ..., "sha256": "<hash of content>"}`, so that one flipped byte is noticed.
//!
//! The hash is over the content as compact JSON in its written order; unknown fields of a newer writer are part of it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of bytes that come piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Hashing(Sha256);

impl Hashing {
    /// Takes in the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hexadecimal SHA-256 of all of them.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a sealed value, with a newline at its end.
pub(crate) fn seal<T: Serialize>(content: &T) -> Vec<u8> {
    let content = serde_json::to_value(content).expect("our own records have string keys and finite numbers");
    let sha256 = sha256_hex(content.to_string().as_bytes());
    let mut text = serde_json::to_vec_pretty(&json!({ "content": content, "sha256": sha256 }))
        .expect("a JSON value can be written as text");
    text.push(b'\n');
    text
}

/// Reads a sealed value back; the error says what does not hold.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let sealed: Value = serde_json::from_slice(bytes).map_err(|e| format!("is damaged: {e}"))?;
    let content = sealed.get("content").ok_or("is damaged: it has no content")?;
    let expected = sealed.get("sha256").and_then(Value::as_str).ok_or("is damaged: it has no SHA-256")?;
    let got = sha256_hex(content.to_string().as_bytes());
    if got != expected {
        return Err(format!("is damaged: its content has SHA-256 {got}, its seal says {expected}"));
    }
    T::deserialize(content).map_err(|e| format!("was written by another version of gristmill: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_the_content_is_noticed() {
        let text = seal(&json!({ "files": ["a", "b"], "version": 12, "none": null }));
        assert_eq!(unseal::<Value>(&text).unwrap()["version"], 12);
        let original = unseal::<Value>(&text).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                // White space may change into other white space; the value never changes unnoticed.
                if let Ok(value) = unseal::<Value>(&flipped) {
                    assert_eq!(value, original, "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn hash_of_a_published_vector() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), expected);
        let mut hashing = Hashing::default();
        hashing.add(b"a");
        hashing.add(b"bc");
        assert_eq!(hashing.finish(), expected);
    }
}
