import { defineConfig } from "vitest/config";

/** The runs that take minutes, apart from `npm test`: projects whose names begin with `long`. */
const long = ["test/long/*.test.ts"];
const longRooms = ["test/long/random-rooms/*.test.ts"];
const longMemory = ["test/long/*-memory.test.ts"];

interface Project {
  readonly name: string;
  readonly include: readonly string[];
  readonly exclude?: readonly string[];
  readonly testTimeout: number;
  /** One file after the other, behind all others: what else runs would show in what is measured. */
  readonly sequential?: boolean;
  /**
   * All that a worker runs shares its modules, which are loaded once: that saves a third of the time. Not where a file
   * changes its process (Temporal's runtime is installed once), or waits for other processes most of its time.
   */
  readonly shared?: boolean;
  readonly database?: boolean;
}

const projects: readonly Project[] = [
  { name: "architecture", include: ["test/architecture.test.ts"], testTimeout: 20_000 },
  { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 10_000, shared: true },
  { name: "property", include: ["test/property/**/*.test.ts"], testTimeout: 60_000, shared: true },
  { name: "conformance", include: ["test/conformance/**/*.test.ts"], testTimeout: 60_000, shared: true },
  { name: "workflows", include: ["test/workflows/**/*.test.ts"], testTimeout: 300_000 },
  { name: "replay", include: ["test/replay/**/*.test.ts"], testTimeout: 60_000 },
  {
    name: "integration",
    include: ["test/integration/**/*.test.ts"],
    testTimeout: 60_000,
    shared: true,
    database: true,
  },
  { name: "crash", include: ["test/crash/**/*.test.ts"], testTimeout: 180_000, database: true },
  {
    name: "end-to-end",
    include: ["test/end-to-end/**/*.test.ts"],
    testTimeout: 300_000,
    database: true,
  },
  { name: "long", include: long, exclude: longMemory, testTimeout: 1_200_000, database: true },
  { name: "long-memory", include: longMemory, testTimeout: 1_200_000, sequential: true, database: true },
  { name: "long-rooms", include: longRooms, testTimeout: 1_500_000, database: true },
];

export default defineConfig({
  test: {
    pool: "forks",
    // On a busy machine what is waited for may take its time; what never comes is noticed all the same.
    expect: { poll: { timeout: 30_000 } },
    maxWorkers: 2,
    projects: projects.map((project) => ({
      extends: true as const,
      test: {
        name: project.name,
        include: [...project.include],
        exclude: [...(project.exclude ?? [])],
        environment: "node",
        testTimeout: project.testTimeout,
        hookTimeout: Math.max(project.testTimeout, 120_000),
        teardownTimeout: 20_000,
        fileParallelism: !project.sequential,
        isolate: !project.shared,
        // Projects with another number of workers must be in another group; groups run one after the other.
        sequence: { groupOrder: project.sequential ? 1 : 0 },
        globalSetup: project.database ? ["test/support/postgres-global-setup.ts"] : [],
      },
    })),
  },
});
