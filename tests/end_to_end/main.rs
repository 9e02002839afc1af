//! Whole-system tests, one file per theme. Each test is a promise, named as a sentence.

mod access;
mod attacks;
mod browser;
mod catalogue;
mod chaos;
mod clients;
mod documentation;
mod enrolment;
mod external;
mod fleet;
mod install;
mod house;
mod output;
mod promises;
mod proxies;
mod refusals;
mod requests;
mod survival;
