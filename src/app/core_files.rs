//! What a crash may leave behind: nothing that is read.

/// From now on this process leaves no core file, and nobody but root looks into its memory: credentials of requests under
/// way are in it, and keys that a verb has just made.
pub fn forbid_core_files() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "core files of this process could hold credentials");
        }
    }
}
