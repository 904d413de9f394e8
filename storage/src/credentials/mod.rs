//! Who asks: where credentials come from, in the order that people expect of the vendors' own tools. What the builders of
//! `object_store` know already is theirs (Google's application defaults, Azure's identities); AWS profiles with their
//! roles, processes and single sign-on are here.
//!
//! Nothing here prints a secret: errors name places, never values.

pub(crate) mod aws;
mod ini;
mod profile;
mod sts;

pub(crate) use sts::tag;

/// A provider of credentials, and a sentence that says where they come from.
#[derive(Debug)]
pub(crate) struct Found<P> {
    pub(crate) provider: P,
    pub(crate) from: String,
}
