//! Who is who: what a verified credential allows.

mod principal;
mod token;

pub use principal::{Principal, Scope};
pub use token::{Authenticator, Config, bearer};
