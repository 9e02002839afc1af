//! Who may connect to the embedded broker: accounts with their rules, enrolled machines, and who
//! may join. Pure.
//!
//! The broker is given all of it before its ports open: with less, it would turn everybody away for
//! a moment, and forget the sessions of those whom it does not know.

use pistat_broker::Directory;
use pistat_protocol::{id::TokenName, order::JoinToken, time::Timestamp};

use crate::{
    access::{Access, SecretHash},
    config::AccountRules,
};

/// The directory; `rules` of an account win over those that the register has.
pub(crate) fn directory(
    access: &Access,
    rules: &[AccountRules],
    join_token: &JoinToken,
    controller: SecretHash,
    now: Timestamp,
) -> Directory {
    let mut directory = Directory::new();
    directory.controller(controller.0);
    if access.default_token_is_in_force(now) {
        directory.join_token(TokenName::default_token().as_str(), SecretHash::of(&join_token.secret).0);
    }
    for token in access.join_tokens().filter(|token| token.is_in_force(now)) {
        if let Some(secret) = token.secret_sha256 {
            directory.join_token(token.name.as_str(), secret.0);
        }
    }
    for account in access.accounts().filter(|account| account.is_in_force(now)) {
        let rules = rules.iter().find(|rules| rules.name.key() == account.name.key());
        let (publish, subscribe) = match rules {
            Some(rules) => (&rules.publish, &rules.subscribe),
            None => (&account.publish, &account.subscribe),
        };
        let (name, token) = (account.name.clone(), account.token_sha256.0);
        directory.account(name, account.role, token, publish.clone(), subscribe.clone());
    }
    for agent in access.agents() {
        if let Some(secret) = agent.secret_sha256 {
            directory.agent(agent.pi.clone(), secret.0);
        }
        if let Some(token) = agent.token_sha256 {
            directory.pi_join_token(agent.pi.clone(), token.0);
        }
    }
    directory
}
