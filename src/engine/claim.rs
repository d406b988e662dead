//! The value under `Key::RunClaim`: whose run it is.

use bytes::Bytes;

use crate::event::UserId;

/// How many bytes come before the user.
const NONCE: usize = 8;

/// A claim on a run for `user`. Two of different `nonce`s are not equal, so that one that was renewed is not taken for
/// the one that was there before.
pub fn encode(user: &UserId, nonce: u64) -> Bytes {
    [&nonce.to_le_bytes(), user.as_str().as_bytes()]
        .concat()
        .into()
}

/// The user whose run it is, if `value` is a claim.
pub fn user(value: &[u8]) -> Option<UserId> {
    let user = std::str::from_utf8(value.get(NONCE..)?).ok()?;
    UserId::new(user).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_user_whatever_its_nonce() {
        for name in ["u1", "é", "a b"] {
            let id = UserId::new(name).unwrap();
            assert_eq!(user(&encode(&id, u64::MAX)), Some(id.clone()));
            assert_ne!(encode(&id, 1), encode(&id, 2));
        }
    }

    #[test]
    fn what_is_no_claim_names_nobody() {
        for value in [&b""[..], b"1234567", b"12345678", b"12345678\xff"] {
            assert_eq!(user(value), None, "{value:?}");
        }
    }
}
