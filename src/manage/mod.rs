//! What may be done with keys and owners, and by whom, and whether the whole fleet enforces it: the same for the management
//! API and the command line.
//!
//! Owns the shapes of requests, how rows of an import are read, the words they may use, who may grant what, and how
//! records and nodes are shown. Must not know HTTP, terminals or where rows come from. Start at [`Desk`].

mod authority;
mod checks;
mod desk;
mod draft;
mod fault;
mod fleet;
mod import;
mod lists;
mod notation;
mod origin;
mod requests;
mod shapes;
mod shown;
mod vocabulary;

pub use authority::{Authority, Caller, Sight};
pub use desk::{Desk, Made, Seen, plan_key};
pub use draft::{Draft, Stored, mint};
pub use fault::{Flaw, Refused};
pub use fleet::{FleetAnswer, NodeName, Pending, ThisNode, Told, forget_node, nodes_json, wait_for_fleet};
pub use import::{BadRow, Batch, Format, Row, RowReader, RowShape, read_rows};
pub use lists::KeyFilter;
pub use notation::{quota_of_text, rate_limit_of_text};
pub use origin::check_origin;
pub use requests::{KeyChange, NewKey, NewOwner, Object, OwnerChange, Retire, Rotation};
pub use shapes::{KeyShape, KindWord, Moment, OwnerShape, QuotaShape, Rate, Whole};
pub use shown::{key_json, key_json_told_to, owner_json};
pub use vocabulary::{Vocabulary, check_description, check_name, split_list};
