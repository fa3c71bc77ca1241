//! Two Tomcats with the server.xml of docs/balancers, for a balancer before them.

use std::fs;
use std::path::PathBuf;

use crate::balancer::{Node, steady_port};
use crate::build::{self, Flavour::Ringtribe};
use crate::http::Browser;
use crate::tomcat::{Setup, Tomcat, free_mcast_port};

/// Their jvmRoutes.
pub const ROUTES: [&str; 2] = ["node-a", "node-b"];
/// What AJP's connectors want to hear.
pub const SECRET: &str = "5ec2e75ec2e75ec2e7";
const BEAN: &str = "Catalina:type=Cluster,host=localhost";

/// See the module.
#[derive(Debug)]
pub struct Pair {
    setups: [Setup; 2],
    nodes: [Node; 2],
    tomcats: [Option<Tomcat>; 2],
}

impl Pair {
    /// Starts both, with the documented file changed by `edit`, and with more files below `conf`.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(
        mode: &str,
        files: &[(String, String)],
        edit: impl Fn(String) -> String,
    ) -> Result<Self, String> {
        let file = build::root().join("docs/balancers/server.xml");
        let server = edit(fs::read_to_string(file).map_err(|error| error.to_string())?);
        let mcast_port = free_mcast_port();
        let nodes =
            ROUTES.map(|route| Node { route, http_port: steady_port(), ajp_port: steady_port() });
        let setups = [0, 1].map(|index: usize| {
            let node = &nodes[index];
            let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut setup = Setup::new(node.route, Ringtribe, mcast_port);
            setup.server = Some(server.clone());
            setup.files = files.to_vec();
            setup.http_port = Some(node.http_port);
            setup.properties = vec![
                property("route", node.route),
                property("mode", mode),
                property("address", "127.0.0.1"),
                property("cluster.address", "127.0.0.1"),
                property("cluster.port", &steady_port().to_string()),
                property("mcast.port", &mcast_port.to_string()),
                property("http.port", &node.http_port.to_string()),
                property("ajp.port", &node.ajp_port.to_string()),
                property("ajp.secret", SECRET),
            ];
            setup
        });
        let mut pair = Self { setups, nodes, tomcats: [None, None] };
        for index in 0..ROUTES.len() {
            pair.start_node(index)?;
        }
        Ok(pair)
    }

    /// Where they listen.
    #[must_use]
    pub const fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// Starts one that was taken.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_node(&mut self, index: usize) -> Result<(), String> {
        self.tomcats[index] = Some(Tomcat::start(&self.setups[index])?);
        Ok(())
    }

    /// One of them, to be ended.
    ///
    /// # Panics
    /// It was taken and not started again.
    #[must_use]
    pub fn take(&mut self, index: usize) -> Tomcat {
        self.tomcats[index].take().expect("it runs")
    }

    /// One of them.
    ///
    /// # Panics
    /// It was taken and not started again.
    #[must_use]
    pub fn tomcat(&self, index: usize) -> &Tomcat {
        self.tomcats[index].as_ref().expect("it runs")
    }

    /// An attribute, or what an operation returns, of the MBean of one's cluster.
    ///
    /// # Panics
    /// There is no such attribute or operation.
    pub fn managed(&self, index: usize, what: &str) -> String {
        let path = format!("/jmx?bean={BEAN}&{what}");
        let answer = self.tomcat(index).ask(&mut Browser::default(), &path).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The directory of this run.
    ///
    /// # Panics
    /// Neither runs.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let one = self.tomcats.iter().flatten().next().expect("one runs");
        one.base().parent().expect("a directory of this run").to_owned()
    }
}
