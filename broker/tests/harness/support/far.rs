//! What stands between a client in memory and the broker: the client's end of TLS, WebSocket, or of a layer of the tests.

use std::rc::Rc;

use broker::transport::Layer;

/// The client's end of layers.
pub trait Far {
    /// What it says first.
    fn begin(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What stands for `plain`; what cannot be said yet comes with a later answer.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8>;

    /// Takes bytes of the broker: what they mean goes to `plain`; what it answers.
    fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Vec<u8>;
}

/// Both ends of a connection's layers, the broker's with the lowest first.
pub type Ends = (Vec<Box<dyn Layer>>, Box<dyn Far>);

/// How all clients of a broker connect.
#[derive(Clone)]
pub struct Way {
    make: Rc<dyn Fn() -> Ends>,
    /// Bytes that the broker reads at once.
    pub piece: usize,
}

impl Way {
    pub fn new(make: impl Fn() -> Ends + 'static) -> Self {
        Self {
            make: Rc::new(make),
            piece: usize::MAX,
        }
    }

    /// The broker reads no more than so many bytes at once.
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece = bytes;
        self
    }

    pub fn ends(&self) -> Ends {
        (self.make)()
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}
