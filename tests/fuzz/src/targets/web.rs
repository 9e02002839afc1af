//! What HTTP requests and the dashboard's WebSocket carry.

use pistat_protocol::{
    account::Role,
    api::{Login, NewAccount, NewEnrolment, NewRun, PatchMachine},
    codec::decode,
    dashboard::ClientMessage,
};

use super::{
    stable,
    terminals::{complete, lines},
};

/// What HTTP requests carry.
pub fn bodies(data: &[u8]) -> bool {
    let known = [
        stable::<NewRun>(data),
        stable::<PatchMachine>(data),
        stable::<Login>(data),
        stable::<NewAccount>(data),
        stable::<NewEnrolment>(data),
        pistat::read_rotation(data),
    ];
    if let Ok(NewRun { expires: Some(expires), .. }) = decode(data)
        && let Err(sentence) = pistat::config::parse_duration(&expires)
    {
        assert!(!sentence.is_empty(), "a refusal says why");
    }
    known.into_iter().any(|known| known)
}

/// What follows the question mark of an address.
pub fn queries(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(pistat::read_query)
}

/// What a browser sends, and what comes of the lines in it.
pub fn messages(data: &[u8]) -> bool {
    if !stable::<ClientMessage>(data) {
        return false;
    }
    match decode(data) {
        Ok(ClientMessage::Command { line, .. }) => drop(lines(line.as_bytes())),
        Ok(ClientMessage::Complete { line, cursor, .. }) => {
            for role in [Role::Viewer, Role::Operator, Role::Admin] {
                complete(&line, cursor, role);
            }
        }
        _ => {}
    }
    true
}
