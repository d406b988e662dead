//! Real processes of the service, load on them, and what judges the outcome. Shared by the test binaries.

pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod ports;
pub(crate) mod reading;
pub(crate) mod runs;
pub(crate) mod server;
pub(crate) mod tools;
pub(crate) mod verdict;
