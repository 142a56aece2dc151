// The Socket.IO server that `kernelci-live load --adapter socketio` loads: what one client publishes goes to all others.
// WebSocket only, no compression: the fastest that it can be set to.
//
//   node socketio.mjs PORT
import { Server } from "socket.io";

const io = new Server(Number(process.argv[2]), {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});
io.on("connection", (socket) => {
  socket.on("publish", (event) => socket.broadcast.emit("event", event));
});
