//! How a connection ends, in codes for the other side and in words for the log.

/// Codes of a close frame (RFC 6455, 7.4.1) that this crate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Close {
    /// It has done what it was for.
    Normal = 1000,
    /// The node or the page goes away.
    Away = 1001,
    /// The other side broke the rules of framing.
    Protocol = 1002,
    /// It sent text; MQTT is binary [MQTT-6.0.0-1].
    Unsupported = 1003,
    /// The reason of its close frame is no UTF-8.
    Invalid = 1007,
    /// A frame is too large.
    Size = 1009,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The other side has closed, with this code if it gave one.
    #[error("closed by the other side{}", code(*.0))]
    Closed(Option<u16>),
    /// The request was not one for a WebSocket, or not one that is allowed: it was answered with this status.
    #[error("an HTTP request answered with status {status}: {why}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// Why, as said in the answer.
        why: &'static str,
    },
    /// The server refused our request with this status.
    #[error("the server answers the WebSocket request with HTTP status {0}")]
    Refused(u16),
    /// What came is no HTTP.
    #[error("{0}")]
    Stranger(Stranger),
    /// The other side broke the rules.
    #[error("{0}")]
    Broken(Violation),
}

fn code(code: Option<u16>) -> String {
    code.map_or_else(String::new, |code| format!(" with code {code}"))
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

/// What came where an HTTP request should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The beginning of an MQTT CONNECT.
    #[error("MQTT without WebSocket, on a port for WebSocket")]
    Mqtt,
    /// The beginning of a TLS handshake.
    #[error("TLS, on a port for WebSocket without TLS")]
    Tls,
    /// Anything else.
    #[error("no HTTP, on a port for WebSocket")]
    Unknown,
}

impl Stranger {
    /// Who speaks like that, if it is not HTTP: each of its methods is written in capital letters.
    pub(crate) fn of(first: u8) -> Option<Self> {
        match first {
            b'A'..=b'Z' => None,
            0x10 => Some(Self::Mqtt),
            0x16 => Some(Self::Tls),
            _ => Some(Self::Unknown),
        }
    }
}

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455, 5.1: a client masks.
    #[error("a frame without a mask")]
    NotMasked,
    /// RFC 6455, 5.1: a server does not mask.
    #[error("a frame with a mask")]
    Masked,
    /// RFC 6455, 5.2: no extension was agreed upon.
    #[error("a frame with reserved bits")]
    ReservedBits,
    /// RFC 6455, 5.2.
    #[error("a frame with a reserved opcode")]
    Opcode,
    /// [MQTT-6.0.0-1]
    #[error("text, where MQTT is binary")]
    Text,
    /// RFC 6455, 5.4.
    #[error("a new message within a fragmented one")]
    Interleaved,
    /// RFC 6455, 5.4.
    #[error("the continuation of no message")]
    Continuation,
    /// RFC 6455, 5.5.
    #[error("a fragmented control frame")]
    FragmentedControl,
    /// RFC 6455, 5.5.
    #[error("a control frame of more than 125 bytes")]
    LongControl,
    /// RFC 6455, 5.2: the highest bit of a length is 0.
    #[error("a frame of 2^63 bytes or more")]
    Length,
    /// Larger than [`FRAME_BYTES_MAX`](crate::FRAME_BYTES_MAX).
    #[error("a frame or message that is too large")]
    TooLarge,
    /// RFC 6455, 7.4.
    #[error("a close frame with a code that is not allowed")]
    CloseCode,
    /// RFC 6455, 5.5.1.
    #[error("a close frame whose reason is no UTF-8")]
    CloseReason,
    /// The server's answer to our request is none of RFC 6455, 4.2.2.
    #[error("the server's answer to the WebSocket request is malformed: {0}")]
    Response(&'static str),
}

impl Violation {
    /// What the other side is told.
    #[must_use]
    pub fn close(self) -> Close {
        match self {
            Self::Text => Close::Unsupported,
            Self::TooLarge => Close::Size,
            Self::CloseReason => Close::Invalid,
            _ => Close::Protocol,
        }
    }
}
