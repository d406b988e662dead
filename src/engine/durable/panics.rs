//! Panics while a directory is opened or looked into: damaged files make the store panic in places, and what it calls. What
//! panics in the service's own code is a fault of the program.

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
    thread,
};

use super::{OpenError, recover::damaged};

/// The name of the thread that opens a directory.
const OPENER: &str = "emitter-opening";

/// This file, below the service's own code.
const HERE: &str = "engine/durable/panics.rs";

thread_local! {
    /// Where the store panicked on this thread, and with which words.
    static AT_THE_STORE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work` on a thread of its own.
///
/// # Errors
/// Those of `work`, and what its panic says.
pub(super) fn contained<T: Send>(
    work: impl FnOnce() -> Result<T, OpenError> + Send,
) -> Result<T, OpenError> {
    static TOLD: Once = Once::new();
    TOLD.call_once(tell);
    let caught = || {
        let done = panic::catch_unwind(AssertUnwindSafe(work));
        done.unwrap_or_else(|payload| Err(error_of(&*payload)))
    };
    thread::scope(|scope| {
        let working = thread::Builder::new()
            .name(OPENER.into())
            .spawn_scoped(scope, caught)?;
        let joined = working.join();
        joined.unwrap_or_else(|payload| Err(error_of(&*payload)))
    })
}

fn error_of(payload: &(dyn Any + Send)) -> OpenError {
    match AT_THE_STORE.with_borrow_mut(Option::take) {
        Some(told) => damaged(&format!("the store cannot make sense of its files: {told}")),
        None => OpenError::Fault(text(payload).to_owned()),
    }
}

/// From here on a panic of the store is one line of the log: what follows from it is told by itself. All others are told as
/// before.
fn tell() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        if !is_at_the_store(name, panicked) {
            return others(panicked);
        }
        let what = text(panicked.payload());
        let at = panicked.location().map(ToString::to_string);
        tracing::error!(thread = name, what, at, "the store failed");
        let told = format!("{what} ({})", at.unwrap_or_default());
        AT_THE_STORE.set(Some(told));
    }));
}

/// Whether a thread panicked that works with files that may be damaged, in code that is not the service's own: one of the
/// store's threads, or the one that opens it.
fn is_at_the_store(thread: &str, panicked: &PanicHookInfo<'_>) -> bool {
    let file = panicked.location().map(|location| location.file());
    (thread == OPENER || thread.starts_with("fjall:")) && !file.is_some_and(is_own)
}

/// Whether a source file is one of the service's own.
fn is_own(file: &str) -> bool {
    let own = file!().strip_suffix(HERE);
    own.is_some_and(|own| file.starts_with(own))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_outside_of_the_store_is_no_damage() {
        let done = contained(|| if true { panic!("oh no") } else { Ok(()) });
        assert!(
            matches!(&done, Err(OpenError::Fault(told)) if told == "oh no"),
            "{done:?}"
        );
        for (file, want) in [
            (file!(), true),
            ("src/sequencer/mod.rs", true),
            ("/dependencies/fjall-3.1.13/src/recovery.rs", false),
            // What it calls.
            ("/rustc/0/library/alloc/src/raw_vec/mod.rs", false),
        ] {
            assert_eq!(is_own(file), want, "{file}");
        }
    }
}
