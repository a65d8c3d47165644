/** An EDU that says nothing that we can or may believe. It is dropped, and its transaction goes on. */
export class EduUnusable extends Error {
  override readonly name = "EduUnusable";
}
