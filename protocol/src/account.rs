//! Accounts and their roles.

use serde::{Deserialize, Serialize};

use crate::id::AccountName;

/// What an account may do; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything.
    Viewer,
    /// And run tasks, cancel, assign, rename, tag.
    Operator,
    /// And accounts, enrolment, forgetting a machine.
    Admin,
}

impl Role {
    /// The role's name as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is not a role: the roles are viewer, operator and admin"))
    }
}

/// An account as `GET /api/accounts` lists it; its token is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// Its name, also its MQTT user name.
    pub name: AccountName,
    /// What it may do.
    pub role: Role,
    /// Topic filters that it may publish to, besides its role's.
    pub publish: Vec<String>,
    /// Topic filters that it may receive, besides its role's.
    pub subscribe: Vec<String>,
    /// When it was made.
    pub created_at: crate::time::Timestamp,
    /// When it ends; null is never.
    pub expires_at: Option<crate::time::Timestamp>,
    /// When its token was last used, over HTTP or MQTT; null is not yet, or before this was
    /// remembered.
    pub last_used: Option<crate::time::Timestamp>,
}
