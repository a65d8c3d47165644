import { tellStories } from "./tell-stories.ts";

await tellStories({ part: 0, parts: 2 });
