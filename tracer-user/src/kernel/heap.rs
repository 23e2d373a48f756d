//! The heap of this process.

/// Pieces of this size or larger go back to the kernel as soon as they are freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 4 << 20;

/// Has what is large given back when it is freed. By itself glibc raises the size from which on it does so to that of what was freed last
/// (mallopt(3), `M_MMAP_THRESHOLD`): then programs' files that were put away would stay memory of ours. To be called while there is one
/// thread.
pub fn give_back_what_is_large() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt(3) takes two numbers, and there is nobody yet who allocates beside us.
        let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        if taken == 0 {
            tracing::debug!("the heap keeps what is large");
        }
    }
}

/// Gives memory that is free back to the kernel: after work that took much of it, and that will not come soon again.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number alone, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
