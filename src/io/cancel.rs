//! Giving long work up.

/// Whether long work is to be given up. Asked from any thread, often.
pub trait Cancel: Sync {
    /// Whether it is.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Called once, when the work can no longer be given up without a trace: what was started is finished, now or by the next
    /// run.
    fn too_late(&self) {}
}

/// Never.
impl Cancel for () {}
