//! How is an explanation shown as text?

use std::fmt;

use super::Explanation;
use super::outcome::{Forwarding, Outcome, Target};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "request       {}", self.request)?;
        let steps = [
            ("listener", &self.listener),
            ("chain", &self.chain),
            ("routes", &self.route_table),
            ("virtual host", &self.virtual_host),
        ];
        for (name, step) in steps {
            if let Some(step) = step {
                writeln!(f, "{name:<13} {step}")?;
            }
        }
        for rule in &self.rules {
            let mark = if rule.chosen { "->" } else { "  " };
            let name = if rule.name.is_empty() { String::new() } else { format!(" `{}`", rule.name) };
            writeln!(f, "  {mark} {}{name}: {}", rule.origin, rule.reason)?;
        }
        write!(f, "{}", self.outcome)?;
        self.nearest.iter().try_for_each(|nearest| writeln!(f, "nearest       {nearest}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Refused => writeln!(f, "outcome       refused: nothing is bound to this port"),
            Outcome::Closed { reason } => writeln!(f, "outcome       closed: {reason}"),
            Outcome::Answered { status, reason, location } => {
                writeln!(f, "outcome       {status}: {reason}")?;
                location.iter().try_for_each(|location| writeln!(f, "  location    {location}"))
            }
            Outcome::Forwarded(forwarding) => write!(f, "{forwarding}"),
            Outcome::Connected { origin, destinations, idle_timeout } => {
                writeln!(f, "outcome       connected by {origin}")?;
                destinations.iter().try_for_each(|target| write!(f, "{target}"))?;
                idle_timeout.iter().try_for_each(|timeout| writeln!(f, "  idle        {timeout}"))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:>5.1} %     {} ({})", self.share, self.cluster, self.transport)?;
        let shown = if self.endpoints.is_empty() { "no endpoints".to_owned() } else { self.endpoints.join(", ") };
        writeln!(f, "              {shown}")
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "outcome       forwarded as {}{}", self.authority, self.path)?;
        self.destinations.iter().try_for_each(|target| write!(f, "{target}"))?;
        if let Some(timeout) = &self.timeout {
            writeln!(f, "  timeout     {timeout}")?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "  fault       {fault}"))?;
        self.cors.iter().try_for_each(|cors| writeln!(f, "  cors        {cors}"))?;
        self.header_changes.iter().try_for_each(|change| writeln!(f, "  header      {change}"))
    }
}
