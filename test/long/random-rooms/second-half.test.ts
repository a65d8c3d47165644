import { tellStories } from "./tell-stories.ts";

await tellStories({ part: 1, parts: 2 });
