//! What the tests run: real Tomcats, real Tribes peers, and a simulated cluster.

pub mod balancer;
pub mod build;
pub mod clients;
pub mod driven;
pub mod faults;
pub mod history;
pub mod hostile;
pub mod http;
pub mod journal;
pub mod judge;
pub mod load;
pub mod member;
pub mod netns;
pub mod peer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod python;
pub mod refuse;
pub mod sim;
pub mod soak;
pub mod storm;
pub mod story;
pub mod tomcat;
pub mod trace;
