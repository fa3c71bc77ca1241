//! What the tests run: real Tomcats, real Tribes peers, and a simulated cluster.

pub mod build;
pub mod history;
pub mod http;
pub mod journal;
pub mod judge;
pub mod member;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod python;
pub mod refuse;
pub mod sim;
pub mod storm;
pub mod tomcat;
pub mod trace;
