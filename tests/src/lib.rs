//! What the tests run: real Tomcats, real Tribes peers, and a simulated cluster.

pub mod build;
pub mod http;
pub mod member;
pub mod peer;
pub mod process;
pub mod python;
pub mod refuse;
pub mod sim;
pub mod story;
pub mod tomcat;
pub mod trace;
