import { defineConfig } from "vitest/config";

/** The runs that take minutes, apart from `npm test`: projects whose names begin with `long`. */
const long = ["test/long/*.test.ts"];
const longRooms = ["test/long/random-rooms/*.test.ts"];

interface Project {
  readonly name: string;
  readonly include: readonly string[];
  readonly testTimeout: number;
  /** One file after the other: its tests start processes, and two cores are all that is promised. */
  readonly sequential?: boolean;
  readonly database?: boolean;
}

const projects: readonly Project[] = [
  { name: "architecture", include: ["test/architecture.test.ts"], testTimeout: 20_000 },
  { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 10_000 },
  { name: "property", include: ["test/property/**/*.test.ts"], testTimeout: 60_000 },
  { name: "conformance", include: ["test/conformance/**/*.test.ts"], testTimeout: 60_000 },
  { name: "workflows", include: ["test/workflows/**/*.test.ts"], testTimeout: 300_000, sequential: true },
  { name: "replay", include: ["test/replay/**/*.test.ts"], testTimeout: 60_000, sequential: true },
  { name: "integration", include: ["test/integration/**/*.test.ts"], testTimeout: 60_000, database: true },
  { name: "crash", include: ["test/crash/**/*.test.ts"], testTimeout: 180_000, sequential: true, database: true },
  {
    name: "end-to-end",
    include: ["test/end-to-end/**/*.test.ts"],
    testTimeout: 300_000,
    sequential: true,
    database: true,
  },
  { name: "long", include: long, testTimeout: 1_200_000, sequential: true, database: true },
  { name: "long-rooms", include: longRooms, testTimeout: 1_500_000, database: true },
];

export default defineConfig({
  test: {
    pool: "forks",
    // On a busy machine what is waited for may take its time; what never comes is noticed all the same.
    expect: { poll: { timeout: 10_000 } },
    maxWorkers: 2,
    projects: projects.map((project) => ({
      extends: true as const,
      test: {
        name: project.name,
        include: [...project.include],
        environment: "node",
        testTimeout: project.testTimeout,
        hookTimeout: Math.max(project.testTimeout, 120_000),
        teardownTimeout: 20_000,
        fileParallelism: !project.sequential,
        // Projects with another number of workers must be in another group; groups run one after the other.
        sequence: { groupOrder: project.sequential ? 1 : 0 },
        globalSetup: project.database ? ["test/support/postgres-global-setup.ts"] : [],
      },
    })),
  },
});
