//! Whole-system tests, one file per theme. Each test is a promise, named as a sentence.

mod access;
mod attacks;
mod browser;
mod catalogue;
mod chaos;
mod clients;
mod description;
mod documentation;
mod enrolment;
mod external;
mod fleet;
mod homeassistant;
mod house;
mod install;
mod matrix;
mod metrics;
mod output;
mod promises;
mod proxies;
mod refusals;
mod requests;
mod restore;
mod sessions;
mod soak;
mod strangers;
mod survival;
