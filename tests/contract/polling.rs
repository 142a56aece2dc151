//! Long polling: subscribe, listen, unsubscribe (contract 5.5 to 5.7).
