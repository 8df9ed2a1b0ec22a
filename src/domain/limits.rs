//! Bounds on what a record may hold, in one place so that every door refuses alike.

/// Longest name of a key, owner, role, environment or scope title, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// Most scopes on one key.
pub const MAX_SCOPES_PER_KEY: usize = 200;
/// Most roles on one key.
pub const MAX_ROLES_PER_KEY: usize = 50;
/// Most networks on one key.
pub const MAX_NETWORKS_PER_KEY: usize = 100;
/// Most origins on one key.
pub const MAX_ORIGINS_PER_KEY: usize = 100;
/// Longest scope, in bytes.
pub const MAX_SCOPE_BYTES: usize = 128;
/// Most metadata entries on one record.
pub const MAX_METADATA_ENTRIES: usize = 50;
/// Largest metadata of one record, serialised, in bytes.
pub const MAX_METADATA_BYTES: usize = 8 * 1024;
/// Longest presented credential that is looked at, in bytes (contract §4: over 8 KiB is malformed).
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;
