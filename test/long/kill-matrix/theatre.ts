import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { startResident, type Resident } from "../../resident/resident.ts";
import { startServiceReceiver, type ServiceReceiver } from "../../support/application-service.ts";
import { openGrounds, type Grounds } from "../../support/failpoints/grounds.ts";
import { openLane, type Lane } from "../../support/failpoints/lane.ts";
import { insist, type Stage } from "./stage.ts";

/** Several sidecars on one PostgreSQL and one Temporal, beside a resident. */
export interface Theatre {
  readonly grounds: Grounds;
  readonly resident: Resident;
  readonly lanes: readonly Lane[];
  /** A stage with a user of its own. */
  stageOn(lane: Lane, label: string): Promise<Stage>;
  close(): Promise<void>;
}

let stages = 0;

export async function openTheatre(laneCount: number): Promise<Theatre> {
  const folder = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
  const resident = await startResident();
  const grounds = await openGrounds();
  const receivers: ServiceReceiver[] = [];
  const lanes: Lane[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(lanes.map(async (lane) => await lane.close()));
    await grounds.close();
    await resident.close();
    await rm(folder, { recursive: true, force: true });
  };
  const open = async (index: number): Promise<void> => {
    const receiver = await startServiceReceiver();
    const registration = join(folder, `service-${index}.yaml`);
    await writeFile(registration, registrationOf(receiver));
    const env = { FASTJOIN_APPLICATION_SERVICES: registration };
    const lane = await openLane(grounds, resident, { name: `lane_${index}`, env });
    lanes[index] = lane;
    receivers[index] = receiver;
  };
  try {
    await Promise.all(Array.from({ length: laneCount }, async (_, index) => await open(index)));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    grounds,
    resident,
    lanes,
    stageOn: async (lane, label) => {
      const alice = await insist("a user", async () => await lane.user(`alice-${++stages}`));
      const receiver = receivers[lanes.indexOf(lane)];
      const pushedTo = (roomId: string): readonly string[] =>
        receiver === undefined ? [] : pushesOf(receiver, roomId);
      return { lane, resident, alice, label: `${label} ${stages}`, pushedTo };
    },
    close,
  };
}

function registrationOf({ url }: ServiceReceiver): string {
  return JSON.stringify({
    id: "witness",
    url,
    as_token: "as-token",
    hs_token: "hs-token",
    sender_localpart: "witness",
    namespaces: { users: [{ exclusive: false, regex: "@alice-.*" }], aliases: [], rooms: [] },
  });
}

/** Each message of the room with the number of transactions, told apart by their ids, in which it came. */
function pushesOf(receiver: ServiceReceiver, roomId: string): readonly string[] {
  const times = new Map<string, Set<string>>();
  for (const { path, body } of receiver.transactions()) {
    for (const event of body.events) {
      if (event.room_id !== roomId || event.type !== "m.room.message") continue;
      const said = String(event.content.body);
      times.set(said, (times.get(said) ?? new Set()).add(path));
    }
  }
  return [...times].map(([said, paths]) => `${said}: ${paths.size}`).toSorted();
}
