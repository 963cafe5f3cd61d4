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

    /// How it says that nothing more will come.
    fn goodbye(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Why it takes nothing more, when it does not.
    fn failed(&self) -> Option<String> {
        None
    }
}

/// What the broker has on its side.
pub enum Side {
    /// These layers, the lowest first.
    Layers(Vec<Box<dyn Layer>>),
    /// Those of a listener.
    Listener(u16),
}

impl From<Vec<Box<dyn Layer>>> for Side {
    fn from(layers: Vec<Box<dyn Layer>>) -> Self {
        Self::Layers(layers)
    }
}

/// Both ends of a connection's layers, the broker's with the lowest first.
pub type Ends = (Vec<Box<dyn Layer>>, Box<dyn Far>);

/// How all clients of a broker connect.
#[derive(Clone)]
pub struct Way {
    make: Rc<dyn Fn() -> (Side, Box<dyn Far>)>,
    /// Bytes that the broker reads at once.
    pub piece: usize,
}

impl Way {
    pub fn new<S: Into<Side>>(make: impl Fn() -> (S, Box<dyn Far>) + 'static) -> Self {
        Self {
            make: Rc::new(move || {
                let (side, far) = make();
                (side.into(), far)
            }),
            piece: usize::MAX,
        }
    }

    /// The broker reads no more than so many bytes at once.
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece = bytes;
        self
    }

    pub fn ends(&self) -> (Side, Box<dyn Far>) {
        (self.make)()
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}
