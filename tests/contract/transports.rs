//! The same request over REST and over the WebSocket.
