// What a person has to change, in a sentence.

export class Refused extends Error {}
