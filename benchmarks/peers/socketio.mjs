// Socket.IO as it comes, WebSocket only: what one client posts, all get.
//
//     node socketio.mjs PORT

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => response.end());
const io = new Server(http, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("listen", (answer) => {
    socket.join("listeners");
    answer();
  });
  socket.on("post", (note, answer) => {
    answer();
    io.to("listeners").emit("note", note);
  });
});

http.listen(Number(process.argv[2]), "127.0.0.1", 2048);
