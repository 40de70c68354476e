//! What went wrong with a request, in Envoy's short words (`%RESPONSE_FLAGS%`)?

use std::fmt;

/// One of Envoy's response flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Flag {
    /// DC: the client closed early.
    DownstreamConnectionTermination,
    /// DI: the request was delayed on purpose.
    DelayInjected,
    /// DPE: the client broke the protocol.
    DownstreamProtocolError,
    /// DT: the connection lasted too long.
    DurationTimeout,
    /// FI: the request was aborted on purpose.
    FaultInjected,
    /// NC: the route names a cluster that does not exist.
    NoClusterFound,
    /// NR: no route, or no filter chain.
    NoRouteFound,
    /// UC: the endpoint closed before it answered.
    UpstreamConnectionTermination,
    /// UF: the endpoint could not be connected to.
    UpstreamConnectionFailure,
    /// UH: no endpoint, or none that is healthy.
    NoHealthyUpstream,
    /// UO: the cluster has all the connections that it may have.
    UpstreamOverflow,
    /// UPE: the endpoint broke the protocol.
    UpstreamProtocolError,
    /// UR: the endpoint reset the stream.
    UpstreamRemoteReset,
    /// URX: the allowed retries were used up.
    UpstreamRetryLimitExceeded,
    /// UT: the request timed out.
    UpstreamRequestTimeout,
}

impl Flag {
    /// Envoy's short name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flag::DownstreamConnectionTermination => "DC",
            Flag::DelayInjected => "DI",
            Flag::DownstreamProtocolError => "DPE",
            Flag::DurationTimeout => "DT",
            Flag::FaultInjected => "FI",
            Flag::NoClusterFound => "NC",
            Flag::NoRouteFound => "NR",
            Flag::UpstreamConnectionTermination => "UC",
            Flag::UpstreamConnectionFailure => "UF",
            Flag::NoHealthyUpstream => "UH",
            Flag::UpstreamOverflow => "UO",
            Flag::UpstreamProtocolError => "UPE",
            Flag::UpstreamRemoteReset => "UR",
            Flag::UpstreamRetryLimitExceeded => "URX",
            Flag::UpstreamRequestTimeout => "UT",
        }
    }
}

impl Flag {
    /// Envoy's long name (`%RESPONSE_FLAGS_LONG%`).
    pub(crate) fn long_name(self) -> &'static str {
        self.words().0
    }

    /// The long name, and the bit in Envoy's `response.flags`.
    fn words(self) -> (&'static str, u64) {
        match self {
            Flag::DownstreamConnectionTermination => ("DownstreamConnectionTermination", 0x4000),
            Flag::DelayInjected => ("DelayInjected", 0x200),
            Flag::DownstreamProtocolError => ("DownstreamProtocolError", 0x4_0000),
            Flag::DurationTimeout => ("DurationTimeout", 0x40_0000),
            Flag::FaultInjected => ("FaultInjected", 0x400),
            Flag::NoClusterFound => ("NoClusterFound", 0x100_0000),
            Flag::NoRouteFound => ("NoRouteFound", 0x100),
            Flag::UpstreamConnectionTermination => ("UpstreamConnectionTermination", 0x40),
            Flag::UpstreamConnectionFailure => ("UpstreamConnectionFailure", 0x20),
            Flag::NoHealthyUpstream => ("NoHealthyUpstream", 0x2),
            Flag::UpstreamOverflow => ("UpstreamOverflow", 0x80),
            Flag::UpstreamProtocolError => ("UpstreamProtocolError", 0x80_0000),
            Flag::UpstreamRemoteReset => ("UpstreamRemoteReset", 0x10),
            Flag::UpstreamRetryLimitExceeded => ("UpstreamRetryLimitExceeded", 0x8000),
            Flag::UpstreamRequestTimeout => ("UpstreamRequestTimeout", 0x4),
        }
    }
}

const MOST: usize = 4;

/// The flags of one request, in the order in which they were set, each once; at most four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ResponseFlags([Option<Flag>; MOST]);

impl ResponseFlags {
    /// Adds a flag behind those that are there. A flag that is there stays where it is; a fifth one is dropped.
    pub(crate) fn set(&mut self, flag: Flag) {
        if self.contains(flag) {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|place| place.is_none()) {
            *free = Some(flag);
        }
    }

    pub(crate) fn contains(&self, flag: Flag) -> bool {
        self.iter().any(|set| set == flag)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// As one number, the way Envoy's `response.flags` tells them.
    pub(crate) fn bits(&self) -> u64 {
        self.iter().map(|flag| flag.words().1).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Flag> + '_ {
        self.0.iter().map_while(|place| *place)
    }
}

impl From<Flag> for ResponseFlags {
    fn from(flag: Flag) -> Self {
        let mut flags = ResponseFlags::default();
        flags.set(flag);
        flags
    }
}

/// `URX,UF`; `-` for none.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (place, flag) in self.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_the_order_in_which_they_were_set() {
        let shown = |flags: &[Flag]| {
            let mut all = ResponseFlags::default();
            flags.iter().for_each(|flag| all.set(*flag));
            all.to_string()
        };
        use Flag::*;
        assert_eq!(shown(&[]), "-");
        assert_eq!(shown(&[NoRouteFound]), "NR");
        assert_eq!(shown(&[UpstreamRetryLimitExceeded, UpstreamConnectionFailure]), "URX,UF");
        assert_eq!(shown(&[UpstreamConnectionFailure, NoClusterFound, UpstreamConnectionFailure]), "UF,NC");
    }
}
