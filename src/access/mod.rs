//! Who is who: what a verified credential allows.

mod cache;
mod check;
mod claims;
mod principal;
mod token;

pub use claims::{Grant, MintError, mint};
pub use principal::{Principal, Scope};
pub use token::{
    Authenticator, Config, SECRET_BYTES, TOKEN_BYTES, bearer, bearer_in, trim_newline,
};
