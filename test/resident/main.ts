import { startAdmin } from "./admin.ts";
import { startResident } from "./resident.ts";

/**
 * The resident as a process of its own. Prints one line of JSON when it is up, `{"serverName", "admin"}`, and ends with
 * its standard input, so that it can't outlive who started it.
 *
 *     node --import tsx test/resident/main.ts '{"fronts": 2}' '{"version": "11", "members": 5000}'
 */
const [options = "{}", ...rooms] = process.argv.slice(2);
const resident = await startResident(JSON.parse(options));
const hosted = rooms.map((parameters) => resident.hostRoom(JSON.parse(parameters)));
const admin = await startAdmin(resident);

process.stdout.write(
  `${JSON.stringify({
    admin,
    serverNames: resident.fronts.map((front) => front.serverName),
    rooms: hosted.map((room) => room.roomId),
  })}\n`,
);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
process.on("SIGTERM", () => process.exit(0));
process.on("SIGINT", () => process.exit(0));
